HTTP/1.1 201 Created
BITS-Packet-Type: Ack
Content-Length: 0
BITS-Session-Id: {2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}
BITS-Protocol: {7df0354d-249b-430f-820d-3d2a9bef4931}
Accept-Encoding: identity

