"""The demonstration that ``facexai demo`` runs: one picture that matches two people."""

from facexai.demo.run import run

__all__ = ["run"]
