"""Reports for people: charts, contact sheets and the HTML page. No Spark."""
