"""Service Quotas, which MiniStack has not: GetServiceQuota and GetAWSDefaultServiceQuota, with the shapes of their API reference
(2019-06-24). Nothing here holds anybody to a quota: it only tells.

An account has the quotas that it asked for, from a file of `{"L-0263D0A3": 8}`, and else what AWS gives everybody.
"""

import json
import os

# Code: service, name, what AWS gives everybody ("AWS service quotas", AWS General Reference).
DEFAULTS = {
    "L-0263D0A3": ("ec2", "EC2-VPC Elastic IPs", 5),
    "L-F678F1CE": ("vpc", "VPCs per Region", 5),
    "L-A4707A72": ("vpc", "Internet gateways per Region", 5),
    "L-DF5E4CA3": ("vpc", "Network interfaces per Region", 5000),
    "L-29B6F2EB": ("vpc", "Interface VPC endpoints per VPC", 50),
    "L-9EF96962": ("ecs", "Services per cluster", 5000),
    "L-3032A538": ("fargate", "Fargate On-Demand vCPU resource count", 6),
    "L-36FBB829": ("fargate", "Fargate Spot vCPU resource count", 6),
}


def asked_for():
    path = os.environ.get("FLEET_EMULATOR_QUOTAS", "")
    if not path or not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def answer(action, body, region, account):
    """Status and document."""
    asked = json.loads(body or b"{}")
    code, service = asked.get("QuotaCode"), asked.get("ServiceCode")
    known = DEFAULTS.get(code)
    if known is None or known[0] != service:
        return refused("The request failed because the specified resource does not exist.")
    value, arn = known[2], f"arn:aws:servicequotas:{region}::{service}/{code}"
    if action == "GetServiceQuota":
        if code not in asked_for():
            return refused("The request failed because the specified quota has no applied value.")
        value, arn = asked_for()[code], f"arn:aws:servicequotas:{region}:{account}:{service}/{code}"
    quota = {
        "ServiceCode": service,
        "ServiceName": service,
        "QuotaArn": arn,
        "QuotaCode": code,
        "QuotaName": known[1],
        "Value": float(value),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
    return 200, {"Quota": quota}


def refused(message):
    return 400, {"__type": "NoSuchResourceException", "Message": message}
