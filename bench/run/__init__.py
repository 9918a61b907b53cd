"""Making what a suite lacks: sessions, engines, time slots."""
