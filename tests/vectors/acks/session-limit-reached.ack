HTTP/1.1 503 Service Unavailable
BITS-Packet-Type: Ack
Content-Length: 0
BITS-Error-Code: 0x800700AA
BITS-Error: 0x800700AA
BITS-Error-Context: 0x5
Retry-After: 600

