"""A verify report as files: JSON, Markdown, HTML, JUnit."""
