"""Reports: one file with the decisions, their explanations, and the faithfulness of these."""

from facexai.report.page import Report, build, schema
from facexai.report.section import Section

__all__ = ["Report", "Section", "build", "schema"]
