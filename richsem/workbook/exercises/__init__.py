"""The exercises of the notebooks: each function judges an answer, see `course.check`."""
