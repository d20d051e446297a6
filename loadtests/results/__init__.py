"""Results: what was measured, counted, validated, plotted and reported."""
