HTTP/1.1 500 Internal Server Error
BITS-Packet-Type: Ack
Content-Length: 0
BITS-Session-Id: {2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}
BITS-Error-Code: 0x8020001F
BITS-Error: 0x8020001F
BITS-Error-Context: 0x5

