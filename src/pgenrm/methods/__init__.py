"""Every method that P-GenRM was compared with, behind one protocol (paper, section 4 and table 1)."""
