"""What people look at: pictures of data and results, and the page that holds them."""
