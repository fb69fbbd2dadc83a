"""Makes the bucket `shop`, which keeps every version, and puts a package into it: upload.py FILE KEY"""

import sys

import boto3
from botocore.config import Config

s3 = boto3.client(
    "s3",
    endpoint_url="http://127.0.0.1:8333",
    region_name="us-east-1",
    aws_access_key_id="AKEXAMPLE",
    aws_secret_access_key="SKEXAMPLE",
    config=Config(s3={"addressing_style": "path"}),
)
try:
    s3.create_bucket(Bucket="shop")
except s3.exceptions.BucketAlreadyExists:
    pass
except s3.exceptions.BucketAlreadyOwnedByYou:
    pass
s3.put_bucket_versioning(Bucket="shop", VersioningConfiguration={"Status": "Enabled"})
file, key = sys.argv[1:]
with open(file, "rb") as body:
    put = s3.put_object(Bucket="shop", Key=key, Body=body, ChecksumAlgorithm="SHA256")
print(f"s3://shop/{key}?versionId={put['VersionId']}")
