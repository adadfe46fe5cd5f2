"""A model behind HTTP, with the routes and shapes of OpenAI's API: ``python -m ternops serve``."""
