"""Generate with a micro_step model beside its base, and sweep tau."""
