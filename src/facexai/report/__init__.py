"""Reports: one file that says what was decided, why, and whether the explanation is true."""

from facexai.report.page import Report, build, schema
from facexai.report.section import Section

__all__ = ["Report", "Section", "build", "schema"]
