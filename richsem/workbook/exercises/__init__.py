"""The exercises of the notebooks: functions that judge answers or know numbers (`course.check`)."""
