"""The Remote Framebuffer protocol (RFC 6143 and the community's rfbproto), server side."""
