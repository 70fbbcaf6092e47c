"""Routing: sites, policies, and the router that runs each product on its backend."""
