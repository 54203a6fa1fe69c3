HTTP/1.1 502 Bad Gateway
Content-Type: text/html
Retry-After: Thu, 05 Mar 2020 08:15:00 GMT
Content-Length: 37

<html><body>Bad gateway</body></html>