"""Models and attacks of the user's own: run as they are, asked before they are judged, blamed by name."""
