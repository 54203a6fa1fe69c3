HTTP/1.1 201 Created
bits-packet-type: ACK
x-resource-id: 8EA7!112
Content-Length: 0

