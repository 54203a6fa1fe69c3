"""
Several processes that serve the same endpoints: what starts them, and what they share.
"""
