"""Test-time user-based scaling (paper, section 3.4): many chains become one verdict."""
