"""Front ends of a running server: OpenAI's HTTP API, whisper.cpp's, realtime WebSocket, Wyoming, and the web page."""
