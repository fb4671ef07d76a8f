"""Events times prices: energy and time, here and elsewhere, and held against measurements."""
