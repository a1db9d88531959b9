"""The web page: noVNC over a WebSocket, and live figures."""
