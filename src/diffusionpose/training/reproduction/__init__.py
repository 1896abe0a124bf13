"""Does what ``training.studies`` describes: trains what is missing, measures, reports, draws."""
