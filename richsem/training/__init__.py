"""Work that takes a while: training and everything that resumes."""
