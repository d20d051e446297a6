"""monitoring: is the service well, and is it still right? Rules, alerts, a dashboard, and what writes them."""
