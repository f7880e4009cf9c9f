"""How to cite what hqsod builds on: one BibTeX entry for each work, used by cards and commands."""

from __future__ import annotations

CITATIONS = {
    "duts": """@inproceedings{wang2017learning,
  title     = {Learning to Detect Salient Objects with Image-level Supervision},
  author    = {Wang, Lijun and Lu, Huchuan and Wang, Yifan and Feng, Mengyang and Wang, Dong
               and Yin, Baocai and Ruan, Xiang},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year      = {2017}
}""",
    "swinir": """@inproceedings{liang2021swinir,
  title     = {{SwinIR}: Image Restoration Using Swin Transformer},
  author    = {Liang, Jingyun and Cao, Jiezhang and Sun, Guolei and Zhang, Kai and Van Gool, Luc
               and Timofte, Radu},
  booktitle = {IEEE International Conference on Computer Vision Workshops},
  year      = {2021}
}""",
    "edsr": """@inproceedings{lim2017enhanced,
  title     = {Enhanced Deep Residual Networks for Single Image Super-Resolution},
  author    = {Lim, Bee and Son, Sanghyun and Kim, Heewon and Nah, Seungjun and Lee, Kyoung Mu},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition Workshops},
  year      = {2017}
}""",
    "cascadepsp": """@inproceedings{cheng2020cascadepsp,
  title     = {{CascadePSP}: Toward Class-Agnostic and Very High-Resolution Segmentation via
               Global and Local Refinement},
  author    = {Cheng, Ho Kei and Chung, Jihoon and Tai, Yu-Wing and Tang, Chi-Keung},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year      = {2020}
}""",
    "purnet": """@article{li2021salient,
  title   = {Salient Object Detection with Purificatory Mechanism and Structural Similarity Loss},
  author  = {Li, Jia and Su, Jinming and Xia, Changqun and Ma, Mingcan and Tian, Yonghong},
  journal = {IEEE Transactions on Image Processing},
  volume  = {30},
  year    = {2021}
}""",
    "resnet": """@inproceedings{he2016deep,
  title     = {Deep Residual Learning for Image Recognition},
  author    = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year      = {2016}
}""",
    "efficientnet": """@inproceedings{tan2019efficientnet,
  title     = {{EfficientNet}: Rethinking Model Scaling for Convolutional Neural Networks},
  author    = {Tan, Mingxing and Le, Quoc V.},
  booktitle = {International Conference on Machine Learning},
  year      = {2019}
}""",
    "u2net": """@article{qin2020u2net,
  title   = {{U2-Net}: Going Deeper with Nested U-Structure for Salient Object Detection},
  author  = {Qin, Xuebin and Zhang, Zichen and Huang, Chenyang and Dehghan, Masood
             and Zaiane, Osmar and Jagersand, Martin},
  journal = {Pattern Recognition},
  volume  = {106},
  pages   = {107404},
  year    = {2020}
}""",
    "isnet": """@inproceedings{qin2022highly,
  title     = {Highly Accurate Dichotomous Image Segmentation},
  author    = {Qin, Xuebin and Dai, Hang and Hu, Xiaobin and Fan, Deng-Ping and Shao, Ling
               and Van Gool, Luc},
  booktitle = {European Conference on Computer Vision},
  year      = {2022}
}""",
    "birefnet": """@article{zheng2024bilateral,
  title   = {Bilateral Reference for High-Resolution Dichotomous Image Segmentation},
  author  = {Zheng, Peng and Gao, Dehong and Fan, Deng-Ping and Liu, Li and Laaksonen, Jorma
             and Ouyang, Wanli and Sebe, Nicu},
  journal = {CAAI Artificial Intelligence Research},
  year    = {2024}
}""",
}
