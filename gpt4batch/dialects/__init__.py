"""What services say, and what it means: pure functions of bytes, without network or clock."""
