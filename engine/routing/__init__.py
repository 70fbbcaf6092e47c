"""Which backend runs which matrix product: sites, policies and the router."""
