HTTP/1.1 200 OK
Content-Length: 0
BITS-Packet-Type: Ack
Server: Microsoft-IIS/10.0
X-Powered-By: ASP.NET
Date: Thu, 05 Mar 2020 08:15:00 GMT

