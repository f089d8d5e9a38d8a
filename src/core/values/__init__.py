"""Values: frozen pytrees of numbers, schedules and tables. Know nothing of links."""
