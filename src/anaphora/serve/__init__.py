"""The HTTP server (extra ``serve``): models are served to clients of OpenAI's interface."""
