"""Live input: windows cut out of endless events and sound, answered in constant memory."""
