"""The fault campaign: real processes, real faults, and a count of what was lost or paid twice."""
