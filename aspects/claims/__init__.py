"""Claims: a published result as an experiment that can fail. Registered, run, judged, recorded, shown."""
