HTTP/1.1 416 Requested Range not satisfiable
BITS-Packet-Type: Ack
Content-Length: 0
BITS-Session-Id: {2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}
BITS-Received-Content-Range: 3072
BITS-Error-Code: 0x00000000
BITS-Error: 0x00000000
BITS-Error-Context: 0x5

