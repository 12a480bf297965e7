"""Does a test notice when the code is wrong? Deliberate faults, each against the tests that should see it."""
