HTTP/1.1 200 OK
BITS-Packet-Type: Ack
Content-Length: 0

