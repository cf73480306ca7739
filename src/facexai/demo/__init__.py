"""One picture passes as two people: the demonstration that ``facexai demo`` runs."""

from facexai.demo.run import run

__all__ = ["run"]
