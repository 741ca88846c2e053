"""Panels as SVG and HTML, for pages, reports and notebooks; no web framework."""
