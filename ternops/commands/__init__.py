"""The commands of ``python -m ternops``; each module adds its own to the parser."""
