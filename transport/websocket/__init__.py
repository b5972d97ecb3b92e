"""The websocket transport: one frame is one request or reply, and subscribers are told over their connection."""
