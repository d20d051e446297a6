"""Load: requests, their arrivals, the clients that send them and the runs made of them."""
