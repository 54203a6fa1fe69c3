"""
Who sends a request, and what they may do: the authentication schemes, and permissions.

Authenticators see the credentials of a request, see
:class:`txbits.interfaces.IAuthenticator`. What they protect, and which packet a request
carries, is not their business.
"""
