HTTP/1.1 400 Bad Request
BITS-Package-Type: ACK
BITS-Error: 0x80070057
BITS-Error-Context: 0x00000005
Content-Length: 0

