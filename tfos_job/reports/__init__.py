"""What people look at: charts, contact sheets and the HTML page. No Spark."""
