HTTP/1.1 400 Bad Request
BITS-Packet-Type: Ack
Content-Length: 0
BITS-Error-Code: 0x80070057
BITS-Error: 0x80070057
BITS-Error-Context: 0x5

