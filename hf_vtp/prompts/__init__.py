"""Prompts without the placeholders of dropped tokens: read, condensed, generated from."""
